"""How threads share work of which some may come late, or be slow: four parts for each thread."""


cdef enum:
    PARTS_OF_THREAD = 4


cdef inline Py_ssize_t first_of_part(Py_ssize_t part, Py_ssize_t count, int num_threads) noexcept nogil:
    """The first of `count` things that belongs to a part; parts are begun in order.

    First there is one large part for each thread, as what it works with stays in its cache and what
    comes next is fetched ahead; then small ones, for those who are ready.
    """
    cdef Py_ssize_t eighths = 5 * min(part, <Py_ssize_t>num_threads) + max(0, part - num_threads)
    return eighths * count // (8 * num_threads)
