"""Avatars in the file formats of other programs: Gaussian splats, surface meshes and skinned, animated models."""
