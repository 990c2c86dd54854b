"""What a training did, as one HTML page that needs nothing beside it."""
