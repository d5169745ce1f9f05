"""The limit itself: infinite_width has what own updates and Gram matrices tend to."""
