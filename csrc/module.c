/* module.c - the door: the module and one register call per room. */
#include "base/state.h"
#include "core/executor.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/step.h"
#include "core/watchdog.h"
#include "io/feed.h"
#include "io/reads.h"
#include "io/server.h"
#include "io/stream.h"
#include "io/tlstransport.h"
#include "io/reader.h"
#include "io/connect.h"
#include "io/sock.h"
#include "io/readpipe.h"
#include "io/writepipe.h"
#include "io/udp.h"

/* A thread of Python's ends by pthread_exit(), for which glibc loads a library: where
 * the program has no descriptor left then, it aborts the process. */
static void
module_load_unwinder(void)
{
#ifdef __GLIBC__
    uv_lib_t library;
    if (uv_dlopen("libgcc_s.so.1", &library) != 0) {
        uv_dlclose(&library); /* frees the message */
    }
#endif
}

static int
module_exec(PyObject *module)
{
    FlState *st = PyModule_GetState(module);
    module_load_unwinder();
    if (fl_state_init(st) < 0) return -1;
    if (fl_handle_register(module, st) < 0) return -1;
    if (fl_step_register(module, st) < 0) return -1;
    if (fl_loop_register(module, st) < 0) return -1;
    if (fl_watchdog_register(module, st) < 0) return -1;
    if (fl_executor_register(module, st) < 0) return -1;
    if (fl_feed_register(module, st) < 0) return -1;
    if (fl_reads_register(module, st) < 0) return -1;
    if (fl_stream_register(module, st) < 0) return -1;
    if (fl_tlstransport_register(module, st) < 0) return -1;
    if (fl_server_register(module, st) < 0) return -1;
    if (fl_reader_register(module, st) < 0) return -1;
    if (fl_connect_register(module, st) < 0) return -1;
    if (fl_sock_register(module, st) < 0) return -1;
    if (fl_readpipe_register(module, st) < 0) return -1;
    if (fl_writepipe_register(module, st) < 0) return -1;
    if (fl_udp_register(module, st) < 0) return -1;
    fl_state_types_made(st);
    return 0;
}

static PyObject *
module_libuv_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyUnicode_FromString(uv_version_string());
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    return fl_state_traverse(PyModule_GetState(module), visit, arg);
}

static int
module_clear(PyObject *module)
{
    FlState *st = PyModule_GetState(module);
    fl_handle_free_spares(st);
    fl_step_free_spares(st);
    return fl_state_clear(st);
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyMethodDef module_methods[] = {
    {"libuv_version", module_libuv_version, METH_NOARGS,
     PyDoc_STR(
         "libuv_version()\n--\n\nReturn the version of libuv in use, as '1.44.2'.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    FL_SLOT_INTERPRETERS,
    FL_SLOT_GIL,
    {0, NULL},
};

struct PyModuleDef fl_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastloop._core",
    .m_doc = "The native half of fastloop.",
    .m_size = sizeof(FlState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&fl_module_def);
}
