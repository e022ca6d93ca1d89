// A guard of CUDA devices that does nothing, so that tensors without values can claim to be on one where there is no GPU.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

struct NoOpGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, NoOpGuard);

} // namespace
