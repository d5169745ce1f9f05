"""What is known: one file per optimizer family, in terms of scaling/."""
