//! Compiles the few functions that only C can define: those with `...` and `va_list`.

fn main() {
    println!("cargo:rerun-if-changed=src/variadic.c");
    #[cfg(target_os = "linux")]
    cc::Build::new()
        .file("src/variadic.c")
        .include("include")
        .flag("-fvisibility=hidden")
        .warnings_into_errors(true)
        .extra_warnings(true)
        .compile("bufferevent_capi_variadic");
}
