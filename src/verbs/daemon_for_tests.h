// DaemonForTests: the part of isthmusd that libibverbs needs, on a thread of the test program.
//
// Threading: for one test thread; the daemon's own objects live on its loop.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "control/admission_gate.h"
#include "control/attach_server.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "control/place.h"
#include "os/process.h"
#include "os/unix_socket.h"
#include "wire/ip.h"

namespace isthmus::verbs {

class DaemonForTests final : public control::AdmissionGate {
 public:
  // An address of the loopback that no other test has had: a socket that travelled between
  // processes may close a moment after its daemon.
  DaemonForTests() {
    static int daemons = 0;
    const int process = os::process_id();
    const std::string number = std::to_string(++daemons);
    address_ = "127." + std::to_string(1 + process / 250 % 250) + "." +
               std::to_string(process % 250) + "." + number;
    socket_path_ = std::filesystem::temp_directory_path() /
                   ("isthmus-verbs-test-" + std::to_string(process) + "-" + number + ".sock");
    loop_ = std::move(*control::EventLoop::create());
    auto place = control::Place::open({.only = {*wire::IpAddress::parse(address_)}}, {}, {});
    EXPECT_TRUE(place.has_value()) << (place ? "" : place.error().message);
    place_ = std::move(*place);
    functions_ = std::make_unique<control::FunctionService>(*loop_, *this, "test");
    auto listener = os::listen_unix(socket_path_, os::UnixAccess::kOwner);
    EXPECT_TRUE(listener.has_value()) << (listener ? "" : listener.error().message);
    server_ = std::make_unique<control::AttachServer>(
        *loop_, std::move(*listener),
        control::AttachServer::Handlers{
            .function = [this](os::Fd connection, control::Greeting greeting) {
              functions_->serve(std::move(connection), std::move(greeting), *place_);
            }});
    EXPECT_TRUE(server_->start().has_value());
    thread_ = std::thread([this] { loop_->run(); });
    setenv("ISTHMUS_SOCKET", socket_path_.c_str(), 1);
  }

  ~DaemonForTests() {
    loop_->stop();
    thread_.join();
    server_.reset();
    functions_.reset();
    std::filesystem::remove(socket_path_);
  }

  const std::string& address() const { return address_; }

  // On the daemon's loop, waiting for its end.
  void run_in_daemon(const std::function<void(control::FunctionService&)>& action) {
    std::promise<void> done;
    loop_->post([&] {
      action(*functions_);
      done.set_value();
    });
    done.get_future().wait();
  }

  // From now on no connection is admitted.
  void deny_all() {
    run_in_daemon([this](control::FunctionService&) { denies_ = true; });
  }

 private:
  control::AdmissionAnswer judge(const control::AdmissionQuestion& question) override {
    if (denies_) return {.allowed = false, .peer_access = 0, .rule = "test denies all"};
    return control::OpenGate{}.judge(question);
  }

  std::string address_;
  std::string socket_path_;
  bool denies_ = false;
  std::unique_ptr<control::EventLoop> loop_;
  std::unique_ptr<control::Place> place_;
  std::unique_ptr<control::FunctionService> functions_;
  std::unique_ptr<control::AttachServer> server_;
  std::thread thread_;
};

}  // namespace isthmus::verbs
