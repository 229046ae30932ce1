"""`python -m jaxnas` is `jaxnas`."""

from jaxnas.cli import main

if __name__ == "__main__":
    main()
