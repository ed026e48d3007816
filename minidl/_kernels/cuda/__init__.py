"""The kernel contract on NVIDIA GPUs: `.cu` files behind one launch layer, through CuPy."""
