"""`python -m services.categorizer`"""

from services.categorizer.app import main

if __name__ == "__main__":
    main()
