// Runs CUDA kernels on the CPU, one fiber per thread of a block, blocks one after the other. Fibers run until they meet
// a barrier or a warp operation; forward, reverse or permuted, so that a missing barrier shows as a wrong result. What
// a device would leave undefined (a barrier that some threads do not reach, a shuffle with a lane gone) is an error.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define MFA_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(emu::now.dynamic_shared)

namespace emu {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
enum class State { ready, at_block_barrier, at_warp_barrier, done };

// A fiber outlives its block: the next one finds it at the end of fiber_main's loop. Switches go by setjmp, which
// leaves the signal mask alone; swapcontext, which sets it by a system call at every switch, only where the address
// sanitizer must be told of each.
struct Fiber {
  ucontext_t context;
  jmp_buf here;
  std::vector<char> stack;
  State state;
  bool begun = false;
  void* fake_stack = nullptr;
};

struct Now {
  Dim3 thread, block, block_dim, grid_dim;
  char* dynamic_shared = nullptr;
  unsigned number = 0;   // of the thread in its block
  unsigned threads = 0;  // of a block
  std::vector<Fiber> fibers;
  std::vector<uint64_t> exchanged;  // a slot per thread, for shuffles
  ucontext_t scheduler;
  jmp_buf scheduler_here;
  void (*body)(void**) = nullptr;
  void** args = nullptr;
  std::string error;
  const void* scheduler_stack = nullptr;
  size_t scheduler_size = 0;
};
inline Now now;

#if defined(__SANITIZE_ADDRESS__)

inline void to_scheduler(Fiber& self) {
  __sanitizer_start_switch_fiber(&self.fake_stack, now.scheduler_stack, now.scheduler_size);
  swapcontext(&self.context, &now.scheduler);
  __sanitizer_finish_switch_fiber(self.fake_stack, &now.scheduler_stack, &now.scheduler_size);
}

inline void to_fiber(Fiber& fiber) {
  void* mine = nullptr;
  __sanitizer_start_switch_fiber(&mine, fiber.stack.data(), fiber.stack.size());
  swapcontext(&now.scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(mine, nullptr, nullptr);
}

inline void begin() { __sanitizer_finish_switch_fiber(nullptr, &now.scheduler_stack, &now.scheduler_size); }

#else

inline void to_scheduler(Fiber& self) {
  if (_setjmp(self.here) == 0) _longjmp(now.scheduler_here, 1);
}

inline void to_fiber(Fiber& fiber) {
  if (_setjmp(now.scheduler_here) != 0) return;
  if (fiber.begun) _longjmp(fiber.here, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}

inline void begin() {}

#endif

inline void fiber_main() {
  begin();
  for (;;) {
    now.body(now.args);
    Fiber& self = now.fibers[now.number];
    self.state = State::done;
    to_scheduler(self);
  }
}

inline void wait(State state) {
  Fiber& self = now.fibers[now.number];
  self.state = state;
  to_scheduler(self);
}

inline void run(unsigned number) {
  now.number = number;
  now.thread = {number % now.block_dim.x, number / now.block_dim.x % now.block_dim.y,
                number / (now.block_dim.x * now.block_dim.y)};
  Fiber& fiber = now.fibers[number];
  fiber.state = State::ready;
  to_fiber(fiber);
}

template <class T>
T exchange(T value, unsigned source_lane) {
  static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
  const unsigned me = now.number, warp = me / 32 * 32;
  std::memcpy(&now.exchanged[me], &value, sizeof(T));
  wait(State::at_warp_barrier);
  T result = value;
  if (warp + source_lane < now.threads) std::memcpy(&result, &now.exchanged[warp + source_lane], sizeof(T));
  wait(State::at_warp_barrier);  // nobody overwrites what another has yet to read
  return result;
}

// Release those who wait for each other; false if nobody could be.
inline bool release(unsigned threads) {
  unsigned at_barrier = 0, alive = 0;
  for (unsigned t = 0; t < threads; ++t) {
    alive += now.fibers[t].state != State::done;
    at_barrier += now.fibers[t].state == State::at_block_barrier;
  }
  if (alive == 0) return false;
  if (at_barrier > 0 && at_barrier == alive) {
    if (alive != threads) throw std::runtime_error("a barrier that finished threads never reach");
    for (unsigned t = 0; t < threads; ++t) now.fibers[t].state = State::ready;
    return true;
  }
  bool any = false;
  for (unsigned warp = 0; warp < threads; warp += 32) {
    const unsigned end = warp + 32 < threads ? warp + 32 : threads;
    unsigned here = 0;
    for (unsigned t = warp; t < end; ++t) here += now.fibers[t].state == State::at_warp_barrier;
    if (here == 0) continue;
    if (here != end - warp) throw std::runtime_error("a warp operation that some lanes do not take part in");
    for (unsigned t = warp; t < end; ++t) now.fibers[t].state = State::ready;
    any = true;
  }
  if (!any) throw std::runtime_error("threads wait at different barriers");
  return true;
}

inline unsigned next_random(uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned(state >> 33);
}

inline std::vector<unsigned> ordered(unsigned n, int order, uint64_t& seed) {
  std::vector<unsigned> numbers(n);
  for (unsigned i = 0; i < n; ++i) numbers[i] = order == 1 ? n - 1 - i : i;
  if (order == 2) {
    for (unsigned i = n; i > 1; --i) std::swap(numbers[i - 1], numbers[next_random(seed) % i]);
  }
  return numbers;
}

inline void make_fibers(size_t count) {
  const size_t made = now.fibers.size();
  if (count <= made) return;
  now.fibers.resize(count);
  for (size_t t = made; t < count; ++t) now.fibers[t].stack.resize(256 * 1024);
  for (Fiber& fiber : now.fibers) {  // all of them: a context has pointers to itself, and has moved
    if (fiber.begun) continue;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, fiber_main, 0);
  }
}

inline void run_block(unsigned threads, size_t shared_bytes, int order, uint64_t& seed) {
  std::vector<char> shared(shared_bytes, char(0xff));  // exactly as large as asked for, and NaN until it is written
  now.dynamic_shared = shared.data();
  now.threads = threads;
  now.exchanged.assign(threads, 0);
  make_fibers(threads);
  for (unsigned t = 0; t < threads; ++t) now.fibers[t].state = State::ready;
  do {
    for (unsigned t : ordered(threads, order, seed)) {
      if (now.fibers[t].state == State::ready) run(t);
    }
  } while (release(threads));
}

template <class F>
struct Caller;
template <class... A>
struct Caller<void(A...)> {
  template <void (*F)(A...), size_t... I>
  static void call(void** args, std::index_sequence<I...>) {
    F(*static_cast<std::remove_reference_t<A>*>(args[I])...);
  }
  template <void (*F)(A...)>
  static void body(void** args) {
    call<F>(args, std::index_sequence_for<A...>());
  }
};

inline int launch(void (*body)(void**), const unsigned* grid, unsigned threads, const uint64_t* part,
                  size_t shared_bytes, void** args, int order, uint64_t seed) {
  now.body = body;
  now.args = args;
  now.block_dim = {threads, 1, 1};
  now.grid_dim = {grid[0], grid[1], grid[2]};
  try {
    const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], first = part[0],
                   last = part[1] < blocks ? part[1] : blocks;
    for (unsigned b : ordered(unsigned(last - first), order, seed)) {
      const uint64_t number = first + b;
      now.block = {unsigned(number % grid[0]), unsigned(number / grid[0] % grid[1]),
                   unsigned(number / (uint64_t(grid[0]) * grid[1]))};
      run_block(threads, shared_bytes, order, seed);
    }
  } catch (const std::exception& error) {
    now.error = error.what();
    now.fibers.clear();  // some stand in the midst of a kernel
    return 1;
  }
  return 0;
}

}  // namespace emu

#define threadIdx (emu::now.thread)
#define blockIdx (emu::now.block)
#define blockDim (emu::now.block_dim)
#define gridDim (emu::now.grid_dim)

// A fiber may resume with another one's numbers in `now`: run() sets them anew each time.
inline void __syncthreads() { emu::wait(emu::State::at_block_barrier); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emu::exchange(value, (emu::now.number % 32) ^ unsigned(mask));
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned votes = 0;
  const unsigned me = emu::now.number, warp = me / 32 * 32;
  emu::now.exchanged[me] = vote;
  emu::wait(emu::State::at_warp_barrier);
  for (unsigned t = 0; t < 32 && warp + t < emu::now.threads; ++t) {
    votes |= unsigned(emu::now.exchanged[warp + t] != 0) << t;
  }
  emu::wait(emu::State::at_warp_barrier);
  return votes;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }

extern "C" const char* emu_error() { return emu::now.error.c_str(); }
