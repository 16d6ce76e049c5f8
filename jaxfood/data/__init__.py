"""Where pictures come from: folders, drawn demo pictures, data sets; and the one uint8 array they become."""
