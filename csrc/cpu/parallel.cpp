#include "parallel.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace mfakit {

static bool forked_child = false;

bool in_forked_child() { return forked_child; }

void serial_after_fork() {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { forked_child = true; });
#endif
}

}  // namespace mfakit
