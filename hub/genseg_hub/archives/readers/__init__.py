"""One module per family of archives; each lists the benchmarks that it reads in `BENCHMARKS`."""
