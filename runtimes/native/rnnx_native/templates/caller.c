/* A Python object that calls one function with one pointer and a number, without the GIL. Built once a machine:
 * it knows nothing of any model. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef void (*run_function)(void *call, int index);

typedef struct {
  PyObject_HEAD
  run_function run;
  void *call;
} Caller;

static int caller_init(PyObject *self, PyObject *args, PyObject *kwargs) {
  Caller *const caller = (Caller *)self;
  unsigned long long run, call;
  (void)kwargs;
  if (!PyArg_ParseTuple(args, "KK", &run, &call)) return -1;
  caller->run = (run_function)(uintptr_t)run;
  caller->call = (void *)(uintptr_t)call;
  return 0;
}

static PyObject *caller_run(PyObject *self, PyObject *index) {
  Caller *const caller = (Caller *)self;
  const long number = PyLong_AsLong(index);
  if (number == -1 && PyErr_Occurred()) return NULL;
  Py_BEGIN_ALLOW_THREADS
  caller->run(caller->call, number != 0);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyMethodDef caller_methods[] = {
    {"run", caller_run, METH_O, "run(index): compute from state buffer 0 or 1 into the other one."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject caller_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "rnnx_native_caller.Caller",
    .tp_basicsize = sizeof(Caller),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Caller(function, call): addresses of a function and of what it is called with.",
    .tp_methods = caller_methods,
    .tp_init = caller_init,
    .tp_new = PyType_GenericNew,
};

static struct PyModuleDef caller_module = {
    PyModuleDef_HEAD_INIT, "rnnx_native_caller", NULL, -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_rnnx_native_caller(void);
PyMODINIT_FUNC PyInit_rnnx_native_caller(void) {
  PyObject *module;
  if (PyType_Ready(&caller_type) < 0) return NULL;
  module = PyModule_Create(&caller_module);
  if (module == NULL) return NULL;
  Py_INCREF(&caller_type);
  if (PyModule_AddObject(module, "Caller", (PyObject *)&caller_type) < 0) {
    Py_DECREF(&caller_type);
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
