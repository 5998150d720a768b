"""`python -m vfbench` is the command `vfbench`."""

from vfbench.cli import main

if __name__ == "__main__":
    main()
