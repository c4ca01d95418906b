"""The page: results as one HTML file that needs no server, no network and no trust in texts."""
