//! Tests of the repository itself: who may depend on whom, and how files look.

mod metadata;
mod sources;
mod tidy;
mod walls;
