// The report of a program whose memory was far: one page of HTML, complete in itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "farmem/page_table.h"
#include "farmem/stats.h"

namespace isthmus::apps {

struct FarSample {
  double seconds = 0;  // Since the program's start.
  farmem::PagerStats stats;
};

struct FarReport {
  std::vector<std::string> command;
  std::int32_t process_id = 0;
  int exit_status = 0;
  std::vector<FarSample> samples;            // In the order of time; the last is the end.
  std::vector<farmem::PageState> last_pages;  // As last seen.
};

std::string report_html(const FarReport& report);

}  // namespace isthmus::apps
