"""Makes another golden directory: the same files and names, but another mesh, other sizes, frames and draws."""
