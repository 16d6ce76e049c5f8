"""A page to try runs on: a picture in the browser, the answer and where the network looked."""
