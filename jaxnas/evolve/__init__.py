"""Population blocks and black-box searchers shared by the rooms."""
