#include "apps/isthmus_far_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "apps/isthmus_far_text.h"
#include "os/address_range.h"

namespace isthmus::apps {
namespace {

using farmem::PagerStats;

constexpr int kWidth = 760;
constexpr int kHeight = 180;
constexpr int kLeft = 70;    // For the numbers at the axis.
constexpr int kBottom = 20;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      default: out += static_cast<unsigned char>(c) < ' ' && c != '\n' ? ' ' : c;
    }
  }
  return out;
}

struct Curve {
  const char* name;
  const char* colour;
  std::vector<double> values;  // One for each x.
};

std::string frame_text(double top, const char* unit) {
  return fmt::format("<svg width=\"{}\" height=\"{}\" font-size=\"11\" font-family=\"sans-serif\">"
                     "<rect x=\"{}\" y=\"0\" width=\"{}\" height=\"{}\" fill=\"none\" "
                     "stroke=\"#bbb\"/><text x=\"0\" y=\"12\">{:.4g} {}</text>"
                     "<text x=\"0\" y=\"{}\">0</text>\n",
                     kWidth, kHeight, kLeft, kWidth - kLeft, kHeight - kBottom, top, unit,
                     kHeight - kBottom);
}

std::string curves_svg(const std::vector<double>& x, const std::vector<Curve>& curves,
                       const char* unit) {
  double top = 0;
  for (const Curve& curve : curves) {
    for (const double value : curve.values) top = std::max(top, value);
  }
  if (top == 0) top = 1;
  const double end = x.empty() || x.back() == 0 ? 1 : x.back();
  std::string svg = frame_text(top, unit);
  int legend = kLeft;
  for (const Curve& curve : curves) {
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"",
                       curve.colour);
    for (std::size_t index = 0; index < x.size(); ++index) {
      svg += fmt::format("{:.1f},{:.1f} ", kLeft + (kWidth - kLeft) * x[index] / end,
                         (kHeight - kBottom) * (1 - curve.values[index] / top));
    }
    svg += fmt::format("\"/><text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>\n", legend, kHeight - 5,
                       curve.colour, curve.name);
    legend += 160;
  }
  return svg + fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.1f} s</text></svg>\n",
                           kWidth, kHeight - 5, end);
}

std::string histogram_svg(const farmem::TimeHistogram& times) {
  constexpr std::size_t kFirst = 8;   // 256 ns.
  constexpr std::size_t kLast = 28;   // 268 ms.
  const auto& buckets = times.buckets;
  std::uint64_t top = 1;
  for (const std::uint64_t count : buckets) top = std::max(top, count);
  std::string svg = frame_text(static_cast<double>(top), "faults");
  const double step = static_cast<double>(kWidth - kLeft) / (kLast - kFirst + 1);
  for (std::size_t bucket = kFirst; bucket <= kLast; ++bucket) {
    const double height =
        (kHeight - kBottom) * static_cast<double>(buckets[bucket]) / static_cast<double>(top);
    const double left = kLeft + step * static_cast<double>(bucket - kFirst);
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
                       "fill=\"#1d70a2\"/>\n",
                       left + 1, kHeight - kBottom - height, step - 2, height);
    if (bucket % 4 == 0) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{:.4g} us</text>\n", left, kHeight - 5,
                         static_cast<double>(std::uint64_t{1} << bucket) / 1000);
    }
  }
  return svg + "</svg>\n";
}

// What a counter grew by between two samples, for each second.
std::vector<double> rate_of(const std::vector<FarSample>& samples,
                            const std::function<double(const PagerStats&)>& counter) {
  std::vector<double> rates;
  for (std::size_t index = 0; index < samples.size(); ++index) {
    if (index == 0) {
      rates.push_back(0);
      continue;
    }
    const double seconds = samples[index].seconds - samples[index - 1].seconds;
    const double grown = counter(samples[index].stats) - counter(samples[index - 1].stats);
    rates.push_back(seconds > 0 ? std::max(0.0, grown / seconds) : 0);
  }
  return rates;
}

std::vector<double> level_of(const std::vector<FarSample>& samples,
                             const std::function<double(const PagerStats&)>& level) {
  std::vector<double> levels;
  for (const FarSample& sample : samples) levels.push_back(level(sample.stats));
  return levels;
}

constexpr double kMegabytesOfPage = static_cast<double>(os::kPageBytes) / 1e6;

std::string charts(const std::vector<FarSample>& samples) {
  std::vector<double> x;
  for (const FarSample& sample : samples) x.push_back(sample.seconds);
  const auto pages = [](std::uint64_t PagerStats::*member) {
    return [member](const PagerStats& stats) {
      return static_cast<double>(stats.*member) * kMegabytesOfPage;
    };
  };
  const auto count = [](std::uint64_t PagerStats::*member) {
    return [member](const PagerStats& stats) { return static_cast<double>(stats.*member); };
  };
  std::string html = "<h2>Network, MB each second</h2>\n";
  html += curves_svg(x,
                     {{"read", "#1d70a2", rate_of(samples, pages(&PagerStats::pages_read))},
                      {"written", "#d62828", rate_of(samples, pages(&PagerStats::pages_written))}},
                     "MB/s");
  html += "<h2>Faults each second</h2>\n";
  html += curves_svg(
      x,
      {{"all", "#888888", rate_of(samples, count(&PagerStats::faults))},
       {"waited for a node", "#d62828", rate_of(samples, count(&PagerStats::faults_remote))}},
      "/s");
  html += "<h2>Where the pages are</h2>\n";
  html += curves_svg(x,
                     {{"here", "#1d70a2", level_of(samples, pages(&PagerStats::pages_local))},
                      {"remote", "#e9c46a", level_of(samples, pages(&PagerStats::pages_remote))}},
                     "MB");
  html += "<h2>Prefetching, percent</h2>\n";
  html += curves_svg(
      x,
      {{"used", "#90be6d",
        level_of(samples, [](const PagerStats& s) { return prefetch_accuracy(s).value_or(0); })},
       {"faults avoided", "#1d70a2",
        level_of(samples, [](const PagerStats& s) { return prefetch_coverage(s).value_or(0); })}},
      "%");
  return html;
}

}  // namespace

std::string report_html(const FarReport& report) {
  std::string command;
  for (const std::string& word : report.command) command += (command.empty() ? "" : " ") + word;
  std::string html =
      "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Far memory</title>"
      "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto}pre{background:#f4f4f4;"
      "padding:1em}</style></head><body>\n";
  html += fmt::format("<h1>Far memory of <code>{}</code></h1>\n<p>Exit status {}.</p>\n",
                      escaped(command), report.exit_status);
  if (report.samples.empty()) {
    return html + "<p>It ended before it was seen once.</p></body></html>\n";
  }
  const PagerStats& last = report.samples.back().stats;
  const FarProcess process{report.process_id, report.command.front(), last};
  html += fmt::format("<pre>{}</pre>\n", escaped(far_process_text(process)));
  html += "<h2>How long faults took</h2>\n" + histogram_svg(last.fault_times);
  html += charts(report.samples);
  html += "<h2>Pages, as last seen</h2>\n" + residency_svg(report.last_pages);
  return html + "</body></html>\n";
}

}  // namespace isthmus::apps
