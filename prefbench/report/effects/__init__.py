"""What preference tuning did, as figures and the page show it: numbers, and nothing that draws."""
