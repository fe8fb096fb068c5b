// The buffers of one thread: each is allocated where its size is named, and all are freed together.
#pragma once

#include <memory>
#include <vector>

#include "mfakit/config.hpp"

namespace mfakit {

// What the make_ functions of the headers take their buffers from; all values begin as 0.
class Arena {
 public:
  double* doubles(index_t n) { return take(doubles_, n); }
  index_t* indices(index_t n) { return take(indices_, n); }
  unsigned char* bytes(index_t n) { return take(bytes_, n); }

 private:
  template <class T>
  using Blocks = std::vector<std::unique_ptr<T[]>>;

  template <class T>
  static T* take(Blocks<T>& blocks, index_t n) {
    blocks.push_back(std::make_unique<T[]>(std::size_t(n)));
    return blocks.back().get();
  }

  Blocks<double> doubles_;
  Blocks<index_t> indices_;
  Blocks<unsigned char> bytes_;
};

}  // namespace mfakit
