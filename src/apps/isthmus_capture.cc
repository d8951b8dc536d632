// isthmus capture: the packets of this host's queue pairs, to a pcapng file or as lines.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <thread>

#include "apps/isthmus_capture_file.h"
#include "apps/isthmus_session.h"
#include "os/clock.h"
#include "os/terminal.h"

namespace isthmus::apps {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const {
    if (file != stdout) std::fclose(file);
  }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

Result<File> open_file(const std::string& path) {
  if (path == "-") return File{stdout};
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return fail_errno(errno, "opening " + path);
  return File{file};
}

bool write_bytes(std::FILE* file, const std::vector<std::byte>& bytes) {
  return std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
}

// Writes what arrives until enough has.
class Recorder {
 public:
  Recorder(const CaptureOptions& options, File file) : options_(options), file_(std::move(file)) {}

  Result<void> begin() {
    if (file_ && (!write_bytes(file_.get(), capture_preamble()) || !flush())) {
      return fail_errno(errno, "writing " + options_.file);
    }
    return {};
  }

  control::Continue take(const control::PacketBatchReport& batch) {
    if (!announced_) {
      announced_ = true;  // The first, empty batch says that the capture has begun.
      if (file_.get() != stdout) fmt::print(stderr, "isthmus: capturing; ctrl-C ends it\n");
    }
    dropped_ = batch.dropped;
    for (const auto& packet : batch.packets) {
      if (file_) {
        if (!write_bytes(file_.get(), capture_block(packet))) return stop();
      } else {
        fmt::print("{}\n", packet_line(packet));
      }
      if (++packets_ == options_.count) {
        flush();
        return control::Continue::kNo;
      }
    }
    return flush() ? control::Continue::kYes : stop();
  }

  void report() const {
    fmt::print(stderr, "isthmus: {} packet{} captured, {} lost\n", packets_,
               packets_ == 1 ? "" : "s", dropped_);
  }
  bool failed() const { return failed_; }

 private:
  // The reader of a pipe went away, or the disk is full.
  control::Continue stop() {
    failed_ = true;
    return control::Continue::kNo;
  }
  bool flush() { return std::fflush(file_ ? file_.get() : stdout) == 0; }

  const CaptureOptions& options_;
  File file_;
  std::uint64_t packets_ = 0;
  std::uint64_t dropped_ = 0;
  bool announced_ = false;
  bool failed_ = false;
};

}  // namespace

CommandResult capture_packets(const GlobalOptions& global, const CaptureOptions& options) {
  if (options.file == "-" && os::output_is_terminal()) {
    return fail(ErrorCode::kInvalid,
                "a pcapng file would upset the terminal: name a file, pipe it, or leave out -w");
  }
  // First: the threads of gRPC must inherit the blocked signals, or one of them dies of ctrl-C.
  const auto watch = ISTHMUS_TRY(os::QuitWatch::create(os::QuitWatch::Keys::kIgnore));
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  File file;
  if (!options.file.empty()) file = ISTHMUS_TRY(open_file(options.file));
  Recorder recorder{options, std::move(file)};
  ISTHMUS_TRY_VOID(recorder.begin());

  const std::uint64_t limit_ns =
      options.seconds > 0
          ? static_cast<std::uint64_t>(options.seconds * static_cast<double>(os::kNsPerSecond))
          : UINT64_MAX;
  std::thread quitter{[&] {
    while (watch->wait(limit_ns) == os::QuitVerdict::kRedraw) {
    }
    client->cancel();
  }};
  const auto ended = client->capture(
      options.qpn, [&](control::PacketBatchReport batch) { return recorder.take(batch); });
  watch->interrupt();
  quitter.join();
  recorder.report();
  ISTHMUS_TRY_VOID(ended);
  return recorder.failed() ? kExitFailed : kExitDone;
}

}  // namespace isthmus::apps
