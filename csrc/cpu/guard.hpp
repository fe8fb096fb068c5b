// A Python context manager whose entry and exit run to their end whatever interrupts them.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <utility>

namespace mfakit {

// `with Guard(take, undo):` calls take() at the start of the block and undo() at its end; undo must bear to be called
// again. Python runs signal handlers between the instructions of Python code, so an interrupt can end a Python __exit__
// before its first line. This one is not Python code, and where undo() itself is interrupted it is called again.
class Guard {
 public:
  Guard(pybind11::object take, pybind11::object undo, pybind11::object translate)
      : take_(std::move(take)), undo_(std::move(undo)), translate_(std::move(translate)) {}
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  ~Guard() {
    if (!entered_) return;
    pybind11::error_scope keep;  // whatever error is on its way stays on its way
    try {
      exit(pybind11::none());
    } catch (pybind11::error_already_set& error) {
      error.discard_as_unraisable("mfakit");
    } catch (...) {
    }
  }

  pybind11::object enter() {
    entered_ = true;
    try {
      return take_();
    } catch (pybind11::error_already_set&) {
      const std::exception_ptr first = std::current_exception();
      try {
        undo();
      } catch (pybind11::error_already_set&) {  // there may have been nothing to undo yet
      }
      std::rethrow_exception(first);
    }
  }

  // `error` is what ended the block, or None; translate(error) may raise what is to be said instead.
  void exit(const pybind11::object& error) {
    undo();
    if (!error.is_none() && !translate_.is_none()) translate_(error);
  }

 private:
  // Raises what interrupted it after it is done; what fails each time is no interrupt.
  void undo() {
    std::exception_ptr first;
    for (int attempt = 0; entered_ && attempt < 100; ++attempt) {
      try {
        undo_();
        entered_ = false;
      } catch (pybind11::error_already_set&) {
        if (!first) first = std::current_exception();
      }
    }
    entered_ = false;
    if (first) std::rethrow_exception(first);
  }

  pybind11::object take_, undo_, translate_;
  bool entered_ = false;
};

inline void define_guard(pybind11::module_& m) {
  pybind11::class_<Guard>(m, "Guard")
      .def(pybind11::init<pybind11::object, pybind11::object, pybind11::object>(), pybind11::arg("take"),
           pybind11::arg("undo"), pybind11::arg("translate") = pybind11::none())
      .def("__enter__", &Guard::enter)
      .def("__exit__", [](Guard& self, const pybind11::object&, const pybind11::object& error,
                          const pybind11::object&) { self.exit(error); });
}

}  // namespace mfakit
