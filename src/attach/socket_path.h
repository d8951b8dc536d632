// Where the daemon listens when nobody says otherwise.
#pragma once

#include <string>

namespace isthmus::attach {

// $ISTHMUS_SOCKET; else the first of these that exists, else the first that this user may make:
//
//     $XDG_RUNTIME_DIR/isthmus/isthmusd.sock      of this user
//     /run/isthmus/isthmusd.sock                  of the system
//     /tmp/isthmus-UID/isthmusd.sock              of this user, without XDG_RUNTIME_DIR
std::string default_socket_path();

// The one of this user among them: where a private daemon listens.
std::string private_socket_path();

}  // namespace isthmus::attach
