"""`python -m services.finisher`"""

from services.finisher.app import main

if __name__ == "__main__":
    main()
