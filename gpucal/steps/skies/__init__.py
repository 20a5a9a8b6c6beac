"""What the skies of a scan tell beside one PWV: SKY of the loads, receivers and bands compared, and the ozone."""
