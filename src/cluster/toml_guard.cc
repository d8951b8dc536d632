#include "cluster/toml_guard.h"

#include <cstddef>
#include <utility>

#include "cluster/policy_text.h"

namespace isthmus::cluster {
namespace {

// Dots of keys, so neither those in texts nor those in comments. A key stays on one line, so with
// a table header and eight nested values (the parser's limit) tables are at most (1 + 8) * 64 deep.
constexpr std::size_t kMaxDotsPerLine = 64;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // Some editors begin a file so.

// Reads a document just far enough to tell its comments, quoted texts and keys apart.
class Scanner {
 public:
  Scanner(std::string_view text, std::string_view document_name)
      : text_(text), document_name_(document_name) {}

  Result<std::string> scan() {
    for (std::size_t i = 0; i < text_.size(); ++i) {
      if (std::string reason = advance(i); !reason.empty()) {
        return std::unexpected(
            Error{ErrorCode::kInvalid, place_in(document_name_, line_, column_) + reason});
      }
    }
    return std::move(safe_);
  }

 private:
  enum class Place { kCode, kComment, kBasicText, kLiteralText };

  // Takes one more character. Not empty: what is wrong with it.
  std::string advance(std::size_t i) {
    const char c = text_[i];
    const bool is_ascii = static_cast<unsigned char>(c) < 0x80;
    ++column_;
    if (!is_ascii && place_ != Place::kComment) {
      return "found a character beyond ASCII outside of a comment; write names and labels in ASCII";
    }
    safe_ += is_ascii ? c : ' ';
    if (c == '\n') {
      place_ = Place::kCode;  // A text that its line did not end is an error of toml++'s to report.
      ++line_;
      column_ = dots_ = 0;
    } else if (place_ == Place::kCode) {
      return advance_in_code(text_.substr(i));
    } else if (place_ == Place::kLiteralText && c == '\'') {
      place_ = Place::kCode;
    } else if (place_ == Place::kBasicText) {
      if (c == '"' && !escaped_) place_ = Place::kCode;
      escaped_ = c == '\\' && !escaped_;
    }
    return {};
  }

  std::string advance_in_code(std::string_view rest) {
    if (rest.starts_with("\"\"\"") || rest.starts_with("'''")) {
      return "found a text of several lines; write it on one line";
    }
    if (rest[0] == '.' && ++dots_ > kMaxDotsPerLine) {
      return "found more than " + std::to_string(kMaxDotsPerLine) +
             " dots in the keys of one line; write a line for each key";
    }
    escaped_ = false;
    if (rest[0] == '#') place_ = Place::kComment;
    if (rest[0] == '"') place_ = Place::kBasicText;
    if (rest[0] == '\'') place_ = Place::kLiteralText;
    return {};
  }

  std::string_view text_;
  std::string_view document_name_;
  std::string safe_;
  Place place_ = Place::kCode;
  bool escaped_ = false;  // The next character of a basic text stands behind a backslash.
  std::size_t line_ = 1;
  std::size_t column_ = 0;
  std::size_t dots_ = 0;
};

}  // namespace

Result<std::string> make_safe_for_toml(std::string_view text, std::string_view document_name) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return Scanner{text, document_name}.scan();
}

}  // namespace isthmus::cluster
