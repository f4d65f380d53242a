//! Tests of the core: see below.
