//! Picture grids.
