//! The operations that diffusion networks spend their time in.
