// Runs a fuzz target over its corpus without a fuzzer: each file named, each file of a folder
// named, and mutations of them from a fixed seed. Every compiler can build it.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr int kMutationsPerInput = 500;

void run(const Bytes& input) {
  // A copy of the exact size, so that the address sanitizer sees a read past the end.
  const Bytes exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

void run_mutations(const Bytes& input, std::mt19937& random) {
  for (int i = 0; i < kMutationsPerInput; ++i) {
    Bytes mutated = input;
    const int edits = 1 + static_cast<int>(random() % 4);
    for (int e = 0; e < edits && !mutated.empty(); ++e) {
      switch (random() % 4) {
        case 0: mutated[random() % mutated.size()] = static_cast<std::uint8_t>(random()); break;
        case 1: mutated[random() % mutated.size()] ^= std::uint8_t(1u << (random() % 8)); break;
        case 2: mutated.resize(random() % (mutated.size() + 1)); break;
        case 3: mutated.push_back(static_cast<std::uint8_t>(random())); break;
      }
    }
    run(mutated);
  }
}

}  // namespace

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    if (fs::is_directory(argv[i])) {
      for (const auto& entry : fs::directory_iterator(argv[i])) files.push_back(entry.path());
    } else {
      files.push_back(argv[i]);
    }
  }
  std::mt19937 random{20260131};
  run({});
  run_mutations(Bytes(64, 0), random);
  for (const fs::path& path : files) {
    std::ifstream in(path, std::ios::binary);
    const Bytes input{std::istreambuf_iterator<char>(in), {}};
    run(input);
    run_mutations(input, random);
  }
  std::printf("%zu inputs and their mutations\n", files.size());
}
