"""`wfm-device doctor`: what is right and wrong with a device, in sentences, and how long its stages take."""
