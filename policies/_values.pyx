# cython: language_level=3, boundscheck=False, wraparound=False
"""`quickly_made` once more, compiled: a request makes some 25 values, one of which has forty fields.

Calling a class takes its arguments through a tuple, a dict and a Python function. A type may instead have a function of
its own for calls (`tp_vectorcall`, as `dict` and `list` have), and that is what is given to it here: it fills a copy of
a dict that holds the defaults and makes it the value's `__dict__`. Whatever is not that simple (an argument that is
missing, unknown or there twice; a subclass, which inherits no such function) goes to `__init__`, which is still there.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef MADE_FROM
    #define MADE_FROM ""
    #endif
    """
    const char *_MADE_FROM "MADE_FROM"

cdef extern from "Python.h":
    ctypedef object (*vectorcallfunc)(object, PyObject *const *, size_t, PyObject *)
    ctypedef struct Type "PyTypeObject":
        vectorcallfunc tp_vectorcall
        object (*tp_new)(Type *, object, PyObject *)

    Py_ssize_t PyVectorcall_NARGS(size_t)
    object PyDict_Copy(object)
    PyObject *PyDict_GetItemWithError(object, object) except? NULL  # borrowed
    int PyDict_SetItem(object, object, object) except -1
    int PyObject_GenericSetAttr(object, object, object) except -1

MADE_FROM = _MADE_FROM.decode()
"""Part of the SHA-256 of this file when it was compiled."""

cdef enum:
    MOST_FIELDS = 64  # as bits


cdef class _Fields:
    cdef tuple names
    cdef dict places  # name -> place
    cdef dict defaults  # of all fields, in order: None where there is no other
    cdef uint64_t required
    cdef list made  # (name, place, what makes it) of those with a factory


cdef dict _fields_of = {}
cdef tuple _NOTHING = ()


def call_quickly(cls, names, defaults, factories):
    """Gives the class such a function. `names` of all fields in order; what some are by default, and what makes it for
    others."""
    cdef _Fields fields = _Fields()
    if len(names) > MOST_FIELDS or cls.__new__ is not object.__new__:
        return
    fields.names = tuple(names)
    fields.places = {name: place for place, name in enumerate(names)}
    fields.defaults = {name: defaults.get(name) for name in names}
    fields.required = sum([1 << i for i, name in enumerate(names) if name not in defaults and name not in factories])
    fields.made = [(name, fields.places[name], make) for name, make in factories.items()]
    _fields_of[cls] = fields
    (<Type *> cls).tp_vectorcall = _call


cdef object _call(object cls, PyObject *const *arguments, size_t flags, PyObject *keywords):
    cdef _Fields fields = <_Fields> PyDict_GetItemWithError(_fields_of, cls)
    cdef Py_ssize_t given = PyVectorcall_NARGS(flags), count = len(fields.names), i, place
    cdef uint64_t seen = 0
    cdef PyObject *found
    if given > count:
        return _slowly(cls, arguments, given, keywords)
    values = PyDict_Copy(fields.defaults)
    for i in range(given):
        seen |= <uint64_t> 1 << i
        PyDict_SetItem(values, fields.names[i], <object> arguments[i])
    if keywords != NULL:
        names = <tuple> keywords
        for i in range(len(names)):
            place = given + i
            if place >= count or names[i] is not fields.names[place]:  # mostly they come in order
                found = PyDict_GetItemWithError(fields.places, names[i])
                if found == NULL:
                    return _slowly(cls, arguments, given, keywords)
                place = <object> found
            if seen & (<uint64_t> 1 << place):
                return _slowly(cls, arguments, given, keywords)
            seen |= <uint64_t> 1 << place
            PyDict_SetItem(values, names[i], <object> arguments[given + i])
    if fields.required & ~seen:
        return _slowly(cls, arguments, given, keywords)
    for name, place, make in fields.made:
        if not seen & (<uint64_t> 1 << place):
            PyDict_SetItem(values, name, make())
    value = (<Type *> object).tp_new(<Type *> cls, _NOTHING, NULL)
    PyObject_GenericSetAttr(value, "__dict__", values)  # as `object.__setattr__`, which a frozen class hides
    return value


cdef object _slowly(object cls, PyObject *const *arguments, Py_ssize_t given, PyObject *keywords):
    """As any class is called."""
    named = {}
    if keywords != NULL:
        named = {name: <object> arguments[given + i] for i, name in enumerate(<tuple> keywords)}
    return type.__call__(cls, *[<object> arguments[i] for i in range(given)], **named)
