"""What is measured: networks of growing width, one step of any rule, exponents with intervals."""
