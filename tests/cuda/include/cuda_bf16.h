// bfloat16 for the emulator: stored in 16 bits, rounded to the nearest, ties to even.
#pragma once

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) {
        const unsigned all = __float_as_uint(value);
        bits = std::isnan(value) ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16;
    }
    operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};

namespace emulator {
template <> struct Code<__nv_bfloat16> { static std::string text() { return "bf16"; } };
}
