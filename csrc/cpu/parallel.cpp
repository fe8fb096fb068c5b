#include "parallel.hpp"

#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace mfakit {

static bool forked_child = false;

bool in_forked_child() { return forked_child; }

void serial_after_fork() {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { forked_child = true; });
  // The threads of libgomp's teams end by pthread_exit, which loads a library the first time, and ends the process
  // where a limit of memory does not let it: so that the first time is now.
  pthread_t thread;
  const auto leave = [](void*) -> void* { pthread_exit(nullptr); };
  if (pthread_create(&thread, nullptr, leave, nullptr) == 0) pthread_join(thread, nullptr);
#endif
}

#ifdef MFAKIT_HAVE_OPENMP
int default_openmp_threads() { return omp_get_max_threads(); }

int startable_threads(int wanted) {
  static thread_local int running = 1;  // libgomp keeps a team for each thread that asks for one
  if (wanted > running) {
    std::mutex gate;
    std::vector<std::thread> threads;
    const std::vector<char> for_libgomp(1 << 18);  // of its own; without these, bad_alloc here and no abort there
    {
      const std::lock_guard<std::mutex> all_at_once(gate);
      threads.reserve(size_t(wanted - 1));
      try {
        while (int(threads.size()) < wanted - 1)
          threads.emplace_back([&gate] { std::lock_guard<std::mutex> wait(gate); });
      } catch (const std::system_error&) {  // no room for a stack, or too many threads
      }
    }
    for (std::thread& thread : threads) thread.join();
    wanted = 1 + int(threads.size());
  }
  running = wanted;
  return wanted;
}
#else
int default_openmp_threads() { return 0; }
int startable_threads(int) { return 1; }
#endif

}  // namespace mfakit
