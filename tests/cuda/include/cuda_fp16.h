// float16 for the emulator: stored in 16 bits, rounded to the nearest, ties to even.
#pragma once

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float value) {
        const float size = std::fabs(value);
        const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
        if (std::isnan(value)) bits = 0x7e00;
        else if (size >= 65520) bits = 0x7c00;
        else  // a mantissa that is rounded up to 2048 carries over into the exponent
            bits = ((exponent + 14) << 10) + int(std::nearbyint(std::ldexp(size, 10 - exponent)));
        bits |= std::signbit(value) << 15;
    }
    operator float() const {
        const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
        float size = std::ldexp(float(mantissa), -24);
        if (exponent == 31) size = mantissa ? NAN : INFINITY;
        else if (exponent > 0) size = std::ldexp(float(1024 + mantissa), exponent - 25);
        return bits >> 15 ? -size : size;
    }
};

namespace emulator {
template <> struct Code<__half> { static std::string text() { return "f2"; } };
}
