"""The first GPU, as NVIDIA's driver library describes it: PyTorch, which knows it too, takes seconds to import."""

from ctypes import CDLL, byref, c_int, create_string_buffer
from typing import NamedTuple

DRIVER = "libcuda.so.1"
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


class Gpu(NamedTuple):
    """A GPU.

    Args:
        name: of the product.
        capability: compute capability.
        cuda: version of CUDA that the driver is for, such as (12, 8).
    """

    name: str
    capability: tuple[int, int]
    cuda: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}.{'.'.join(map(str, self.capability))}"


def gpu() -> Gpu | None:
    """The first GPU visible to this process; None without a driver, or if it shows none."""
    try:
        driver = CDLL(DRIVER)
    except OSError:
        return None
    device, name, cuda, major, minor = c_int(), create_string_buffer(256), c_int(), c_int(), c_int()
    faults = [driver.cuDriverGetVersion(byref(cuda)), driver.cuInit(0), driver.cuDeviceGet(byref(device), 0)]
    faults.append(driver.cuDeviceGetName(name, 256, device))
    for number, attribute in zip((major, minor), CAPABILITY, strict=True):
        faults.append(driver.cuDeviceGetAttribute(byref(number), attribute, device))
    if any(faults):
        return None
    return Gpu(name.value.decode(), (major.value, minor.value), (cuda.value // 1000, cuda.value % 1000 // 10))
