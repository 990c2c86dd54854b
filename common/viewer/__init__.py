"""The interactive viewer: from the controls' state to Gaussians, and the browser page that shows them."""
