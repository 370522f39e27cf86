//! Coracle's tests: nothing but its test binaries, one a level, and the program that the end-to-end tests start.
