"""The programs of other makes that tests/real puts around the proxy, and how they are started and found."""
