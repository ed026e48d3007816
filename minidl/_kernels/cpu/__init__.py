"""The kernel contract on the CPU: Cython loops behind one launch layer."""

from .conv import has_openmp, instruction_set
from .launch_conv import *
from .launch_elementwise import *
from .launch_norm import *
from .launch_optim import *
from .launch_pool import *
from .threads import get_num_threads, set_num_threads
