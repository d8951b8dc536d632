// Goal: programs are run with their output and status kept, stopped when asked, and found missing;
// whoever listens at a socket is named.
// Method: small programs every machine has.
#include "os/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/fd.h"
#include "os/text_file.h"
#include "os/unix_peer.h"
#include "os/unix_socket.h"

namespace isthmus::os {
namespace {

TEST(ChildProcess, KeepsOutputAndStatus) {
  const auto finished = run_to_end({"sh", "-c", "echo out; echo err >&2; exit 7"});
  ASSERT_TRUE(finished) << finished.error().message;
  EXPECT_EQ(finished->status, 7);
  EXPECT_EQ(finished->output, "out\nerr\n");
  EXPECT_EQ(run_to_end({"sh", "-c", "kill -TERM $$"})->status, 128 + 15);
}

TEST(ChildProcess, SaysThatThereIsNoSuchProgram) {
  EXPECT_EQ(run_to_end({"isthmus-no-such-program"}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(replace_process({"isthmus-no-such-program"}, {}).code, ErrorCode::kNotFound);
}

TEST(ChildProcess, ChangesTheEnvironment) {
  const auto status = run_in_foreground({"sh", "-c", "[ \"$ISTHMUS_A\" = 1 ] && [ -n \"$PATH\" ]"},
                                        {{"ISTHMUS_A", "1"}});
  EXPECT_EQ(status.value(), 0);
}

TEST(ChildProcess, PassesSignalsOn) {
  // Each says so to its parent, which is this test, once it is ready for the answer.
  for (const char* name : {"TERM", "INT", "HUP", "QUIT", "USR1"}) {
    const std::string script = std::string("trap 'kill $!; exit 9' ") + name +
                               "; sleep 20 & kill -" + name + " $PPID; wait";
    EXPECT_EQ(run_in_foreground({"bash", "-c", script}, {}).value(), 9) << name;
  }
  // One without a handler ends as it would without us.
  const auto ended = run_in_foreground({"sh", "-c", "kill -TERM $PPID; exec sleep 20"}, {});
  EXPECT_EQ(ended.value(), 128 + 15);
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_FALSE(sigismember(&blocked, SIGTERM));
}

TEST(ChildProcess, ALogMayStayOpenInWhatStaysBehind) {
  char path[] = "/tmp/isthmus-log-XXXXXX";
  const Fd file{mkstemp(path)};
  // The shell ends, its child lives on with the log open; run_to_end would wait for it.
  const auto status = run_with_log({"sh", "-c", "echo said; sleep 20 & echo $!"}, path);
  EXPECT_EQ(status.value(), 0);
  const std::string text = read_text_file(path).value();
  ASSERT_TRUE(text.starts_with("said\n"));
  EXPECT_TRUE(stop_process(std::stoi(text.substr(5)), Stop::kForce, 5000));
  unlink(path);
}

TEST(ChildProcess, StoppingWhatIsGoneIsFine) {
  const auto finished = run_to_end({"sh", "-c", "echo $$"});
  EXPECT_TRUE(stop_process(std::stoi(finished->output), Stop::kAsk, 1000));
  EXPECT_FALSE(stop_process(1, Stop::kAsk, 0));
  EXPECT_FALSE(stop_process(-1, Stop::kAsk, 0));
}

TEST(TextFile, WritesInOneStepAndKeepsFoldersPrivate) {
  char folder[] = "/tmp/isthmus-text-XXXXXX";
  const std::string base = mkdtemp(folder);
  ASSERT_TRUE(make_private_folder(base + "/a/b"));
  ASSERT_TRUE(make_private_folder(base + "/a/b"));  // Once more is fine.
  const std::string file = base + "/a/b/key";
  ASSERT_TRUE(write_text_file(file, "one", TextFileAccess::kOwner));
  ASSERT_TRUE(write_text_file(file, "two", TextFileAccess::kOwner));
  EXPECT_EQ(read_text_file(file).value(), "two");
  EXPECT_EQ(list_folder(base + "/a/b"), std::vector<std::string>{"key"});
  // A folder others may write to is no place for a key.
  ASSERT_EQ(chmod((base + "/a").c_str(), 0777), 0);
  EXPECT_EQ(make_private_folder(base + "/a").error().code, ErrorCode::kDenied);
  EXPECT_TRUE(remove_tree(base));
  EXPECT_TRUE(remove_tree(base));
  EXPECT_EQ(read_text_file(file).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(list_folder(base).empty());
}

TEST(UnixPeer, NamesTheListenerAndTellsAbsentFromDead) {
  char folder[] = "/tmp/isthmus-peer-XXXXXX";
  const std::string path = std::string(mkdtemp(folder)) + "/s";
  EXPECT_EQ(unix_peer_process(path, UnixSocketType::kSeqPacket).error().code, ErrorCode::kNotFound);
  auto listener = listen_unix(path, UnixAccess::kOwner);
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_EQ(unix_peer_process(path, UnixSocketType::kSeqPacket).value(), getpid());
  listener->reset();
  EXPECT_EQ(unix_peer_process(path, UnixSocketType::kSeqPacket).error().code, ErrorCode::kRefused);
  EXPECT_FALSE(unix_peer_process(std::string(200, 'x'), UnixSocketType::kStream));
  EXPECT_TRUE(remove_tree(folder));
}

}  // namespace
}  // namespace isthmus::os
