// Certified brackets, a sample at a time.
#include "mfakit/certify.hpp"

#include <algorithm>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

// One thread's buffers.
struct Buffers {
  std::vector<double> values;
  std::vector<index_t> indices;
  std::vector<unsigned char> done;
  CertifyScratch scratch{};
  double* log_prob = nullptr;

  explicit Buffers(const Coordinates& q) {
    const index_t size = q.size(), k = q.n_components, c = q.n_classes, l = q.l;
    const index_t R = std::max<index_t>(l * (most_sources + 1), 1);
    // The walk's bisection borrows the coefficients for a point.
    const index_t combination = std::max({(most_sources + 1) * (l + 1), 2 * most_active * (l + 1), size});
    const index_t sizes[] = {k,
                             c,
                             k,
                             combination,
                             6 * l,
                             2 * l + 1,
                             2 * l + 1,
                             k,
                             k,
                             k,
                             size,
                             2 * size,
                             size,
                             size,
                             R * R,
                             R * R,
                             (most_sources + 1) * R,
                             most_sources * R,
                             (most_sources + 1) * R * R,
                             R * R,
                             R,
                             (most_sources + 1) * R};
    index_t total = 0;
    for (index_t n : sizes) total += n + 1;
    values.resize(size_t(total));
    indices.resize(size_t(c + combination + R));
    done.resize(size_t(k));
    double* at = values.data();
    int which = 0;
    const auto take = [&] {
      double* here = at;
      at += sizes[which++] + 1;
      return here;
    };
    CertifyScratch& s = scratch;
    s.decision.log_prob = take();
    s.decision.total = take();
    log_prob = take();
    s.g.coefficient = take();
    s.pair = {take(), take(), take()};
    s.bound = take();
    s.offset = take();
    s.error = take();
    s.trial = take();
    s.point = take();
    s.ray.w = take();
    s.ray.a = take();
    LocalProblem& p = s.problem;
    p.rows = take();
    p.basis = take();
    p.e = take();
    p.b = take();
    p.K = take();
    p.P = take();
    p.delta = take();
    p.work = take();
    s.decision.best = indices.data();
    s.g.index = indices.data() + c;
    p.pivot = indices.data() + c + combination;
    s.done = done.data();
  }
};

MFAKIT_CLONES Certificate certify_one(const Coordinates& q, const PairTable& table, const Sample& x, double* log_prob,
                                      double* alpha, double* w, CertifyScratch& scratch) {
  return certify(q, table, x, log_prob, alpha, w, scratch);
}

}  // namespace

void certify_rows(const Coordinates& q, const PairTable& table, const double* a, const double* sq, const index_t* y,
                  index_t n, double* alpha, double* w, double* bracket, index_t* reports, int n_threads) {
  std::vector<Buffers> buffers;
  buffers.reserve(size_t(n_threads));
  for (int i = 0; i < n_threads; ++i) buffers.emplace_back(q);
  const index_t size = q.size();
  parallel_ranges(n, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    Buffers& own = buffers[size_t(thread)];
    for (index_t i = begin; i < end; ++i) {
      const Sample x{a + i * size, sq[i], y[i]};
      const Certificate c = certify_one(q, table, x, own.log_prob, alpha + i, w + i * size, own.scratch);
      bracket[2 * i] = c.lower;
      bracket[2 * i + 1] = c.upper;
      const index_t report[] = {c.source, c.target, c.rival, c.n_pairs, c.n_duals};
      std::copy(report, report + 5, reports + 5 * i);
    }
  });
}

}  // namespace mfakit
