"""The fields of a reservation, for the modules of limits that make one."""


cdef class Reservation:
    cdef object amount
    cdef list parts
    cdef object due
    cdef object made
    cdef list joined
    cdef bint open

    cdef list _together(self)
    cdef int _settle(self, object used) except -1
    cdef bint _is_open(self)
    cdef bint _closed(self)
