// A load on a Redis server, as redis-benchmark's, with keys that follow Zipf's law or none.
//
// Usage: redis_load PORT [--keys N] [--commands N] [--clients N] [--pipeline N] PHASE...
//
// Phases: fill (each key once), get-uniform, get-zipf, set-uniform, set-zipf. Zipf: the k-th
// most wanted key is wanted in proportion to k^-0.99, and which one it is has nothing to do with
// its place in memory. Each reply is checked. A phase first runs a quarter of its commands unseen,
// then prints a line of JSON: commands a second, median and 99th percentile of a round trip in us.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kValueBytes = 1024;
constexpr double kZipfExponent = 0.99;
constexpr std::uint64_t kSeed = 20;

struct Options {
  std::uint16_t port = 0;
  std::size_t keys = 150'000;
  std::size_t commands = 200'000;
  std::size_t clients = 50;
  std::size_t pipeline = 1;
  std::vector<std::string> phases;
};

[[noreturn]] void die(const char* what, std::string_view found = {}) {
  std::fprintf(stderr, "redis_load: %s %.*s\n", what, static_cast<int>(found.size()), found.data());
  std::exit(1);
}

enum class Command : std::uint8_t { kGet, kSet };
enum class Law : std::uint8_t { kInOrder, kUniform, kZipf };

struct Phase {
  Command command;
  Law law;
};

Phase phase_of(std::string_view name) {
  if (name == "fill") return {Command::kSet, Law::kInOrder};
  if (name == "get-uniform") return {Command::kGet, Law::kUniform};
  if (name == "get-zipf") return {Command::kGet, Law::kZipf};
  if (name == "set-uniform") return {Command::kSet, Law::kUniform};
  if (name == "set-zipf") return {Command::kSet, Law::kZipf};
  die("no such phase:", name);
}

// Which keys the commands name, drawn before the clock runs.
std::vector<std::uint32_t> draw_keys(Law law, std::size_t keys, std::size_t commands) {
  std::mt19937_64 random(kSeed);
  std::vector<std::uint32_t> drawn(commands);
  if (law == Law::kInOrder) {
    for (std::size_t at = 0; at < commands; ++at) drawn[at] = static_cast<std::uint32_t>(at % keys);
    return drawn;
  }
  if (law == Law::kUniform) {
    for (auto& key : drawn) key = static_cast<std::uint32_t>(random() % keys);
    return drawn;
  }
  std::vector<double> sums(keys);
  std::vector<std::uint32_t> key_of_rank(keys);
  double sum = 0;
  for (std::size_t rank = 0; rank < keys; ++rank) {
    sums[rank] = sum += std::pow(static_cast<double>(rank + 1), -kZipfExponent);
    key_of_rank[rank] = static_cast<std::uint32_t>(rank);
  }
  std::ranges::shuffle(key_of_rank, random);
  std::uniform_real_distribution<double> anywhere(0, sum);
  for (auto& key : drawn) {
    const auto rank = std::ranges::lower_bound(sums, anywhere(random)) - sums.begin();
    key = key_of_rank[std::min<std::size_t>(static_cast<std::size_t>(rank), keys - 1)];
  }
  return drawn;
}

std::string value_of(std::uint32_t key) {
  std::array<char, 17> piece;
  std::snprintf(piece.data(), piece.size(), "%016x", key * 2654435761u);
  std::string value;
  while (value.size() < kValueBytes) value.append(piece.data(), 16);
  return value;
}

void append_request(Command command, std::uint32_t key, std::string& to) {
  std::array<char, 64> head;
  const char* words = command == Command::kGet ? "*2\r\n$3\r\nGET" : "*3\r\n$3\r\nSET";
  std::snprintf(head.data(), head.size(), "%s\r\n$11\r\nk%010u\r\n", words, key);
  to += head.data();
  if (command == Command::kSet) to += "$1024\r\n" + value_of(key) + "\r\n";
}

void append_reply(Command command, std::uint32_t key, std::string& to) {
  to += command == Command::kSet ? "+OK\r\n" : "$1024\r\n" + value_of(key) + "\r\n";
}

using Clock = std::chrono::steady_clock;

struct Client {
  int fd = -1;
  std::string wanted;  // The replies to what is under way.
  std::string found;
  Clock::time_point start;
};

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options), epoll_(epoll_create1(0)), clients_(options.clients) {
    for (Client& client : clients_) {
      client.fd = connect_to(options.port);
      epoll_event event{.events = EPOLLIN, .data = {.ptr = &client}};
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, client.fd, &event) != 0) die("epoll_ctl");
    }
  }

  // Seconds; a round trip's microseconds go to `times_us`.
  double run(Command command, const std::uint32_t* keys, std::size_t count,
             std::vector<float>& times_us) {
    command_ = command;
    next_ = keys;
    end_ = keys + count;
    const auto start = Clock::now();
    std::size_t busy = 0;
    for (Client& client : clients_) busy += ask(client) ? 1 : 0;
    std::array<epoll_event, 64> events;
    while (busy > 0) {
      const int ready = epoll_wait(epoll_, events.data(), events.size(), 60'000);
      if (ready <= 0) die("no answer for a minute");
      for (int index = 0; index < ready; ++index) {
        Client& client = *static_cast<Client*>(events[static_cast<std::size_t>(index)].data.ptr);
        if (!take_reply(client)) continue;
        const std::chrono::duration<float, std::micro> time = Clock::now() - client.start;
        times_us.push_back(time.count());
        if (!ask(client)) --busy;
      }
    }
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

 private:
  static int connect_to(std::uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(port);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof server) != 0) {
      die("no server at this port");
    }
    return fd;
  }

  // False: nothing is left to ask for.
  bool ask(Client& client) {
    if (next_ == end_) return false;
    request_.clear();
    client.wanted.clear();
    client.found.clear();
    for (std::size_t step = 0; step < options_.pipeline && next_ != end_; ++step, ++next_) {
      append_request(command_, *next_, request_);
      append_reply(command_, *next_, client.wanted);
    }
    client.start = Clock::now();
    std::string_view rest = request_;  // The socket blocks: Redis reads while it answers.
    while (!rest.empty()) {
      const ssize_t sent = send(client.fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) die("the server has closed a connection");
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  // Whether all replies are there; they must be right.
  static bool take_reply(Client& client) {
    std::array<char, 65536> bytes;
    const ssize_t count = recv(client.fd, bytes.data(), bytes.size(), 0);
    if (count <= 0) die("the server has closed a connection");
    client.found.append(bytes.data(), static_cast<std::size_t>(count));
    if (!client.wanted.starts_with(client.found)) {
      die("a wrong reply:", std::string_view(client.found).substr(0, 80));
    }
    return client.found.size() == client.wanted.size();
  }

  const Options& options_;
  int epoll_;
  std::vector<Client> clients_;
  Command command_ = Command::kGet;
  const std::uint32_t* next_ = nullptr;
  const std::uint32_t* end_ = nullptr;
  std::string request_;
};

void run_phase(const Options& options, Load& load, const std::string& name) {
  const Phase phase = phase_of(name);
  const bool fills = phase.law == Law::kInOrder;
  const std::size_t unseen = fills ? 0 : options.commands / 4;
  const std::size_t count = fills ? options.keys : options.commands;
  const auto keys = draw_keys(phase.law, options.keys, unseen + count);
  std::vector<float> times_us;
  load.run(phase.command, keys.data(), unseen, times_us);
  times_us.clear();
  const double seconds = load.run(phase.command, keys.data() + unseen, count, times_us);
  std::ranges::sort(times_us);
  std::printf(
      "{\"phase\": \"%s\", \"commands\": %zu, \"per_second\": %.0f, \"median_us\": %.1f, "
      "\"p99_us\": %.1f}\n",
      name.c_str(), count, static_cast<double>(count) / seconds,
      static_cast<double>(times_us[times_us.size() / 2]),
      static_cast<double>(times_us[times_us.size() * 99 / 100]));
  std::fflush(stdout);
}

bool set_option(Options& options, std::string_view name, const char* value) {
  const std::size_t number = std::strtoull(value, nullptr, 10);
  std::size_t* const place = name == "--keys"       ? &options.keys
                             : name == "--commands" ? &options.commands
                             : name == "--clients"  ? &options.clients
                             : name == "--pipeline" ? &options.pipeline
                                                    : nullptr;
  if (place == nullptr || number == 0) return false;
  *place = number;
  return true;
}

int usage() {
  std::fprintf(stderr,
               "usage: redis_load PORT [--keys N] [--commands N] [--clients N] "
               "[--pipeline N] fill|{get,set}-{uniform,zipf}...\n");
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  if (count < 3) return usage();
  options.port = static_cast<std::uint16_t>(std::atoi(arguments[1]));
  for (int index = 2; index < count; ++index) {
    if (arguments[index][0] != '-') {
      options.phases.emplace_back(arguments[index]);
    } else if (index + 1 == count || !set_option(options, arguments[index], arguments[index + 1])) {
      return usage();
    } else {
      ++index;
    }
  }
  Load load(options);
  for (const std::string& phase : options.phases) run_phase(options, load, phase);
  return 0;
}
