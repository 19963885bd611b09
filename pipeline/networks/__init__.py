"""What networks there are, what they cost and what they see."""
